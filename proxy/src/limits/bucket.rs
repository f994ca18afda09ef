//! Token buckets in whole numbers: what has been used of a burst comes back at a rate. Pure; time is an argument.

use crate::clock::Millis;

/// The most per second, and the most at once.
pub const RATE_MAX: u32 = 1_000_000;

/// A bucket counts in thousandths of a token, so that a rate per second is a rate per millisecond, without a remainder.
const TOKEN: u32 = 1_000;

/// How often something may happen: `per_second` in the long run, `burst` at once. Over any time `t` at most `burst + per_second * t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    /// `None` for 0 per second, which means no limit. Both stay within [`RATE_MAX`], and the burst is at least 1.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        let (per_second, burst) = (per_second.min(RATE_MAX), burst.clamp(1, RATE_MAX));
        (per_second > 0).then_some(Self { per_second, burst })
    }
}

/// What is used of a burst, in thousandths. Unused is zero, whatever the rate, so what is forgotten then is not missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used(u32);

impl Used {
    /// Gives back what `elapsed` is worth.
    pub(super) fn recover(&mut self, rate: Rate, elapsed: Millis) {
        let worth = elapsed.saturating_mul(u64::from(rate.per_second));
        self.0 = self.0.saturating_sub(u32::try_from(worth).unwrap_or(u32::MAX));
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The time until there is one; nothing is taken then.
    pub(super) fn take(&mut self, rate: Rate) -> Result<(), Millis> {
        // At most 1,000,000 times 1,000, and one more: that fits.
        let after = self.0 + TOKEN;
        let beyond = after.saturating_sub(rate.burst * TOKEN);
        if beyond > 0 {
            return Err(u64::from(beyond.div_ceil(rate.per_second)));
        }
        self.0 = after;
        Ok(())
    }

    pub(super) const fn is_nothing(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zero_is_no_limit_and_a_burst_is_at_least_one() {
        assert_eq!(Rate::new(0, 10), None);
        assert_eq!(Rate::new(5, 0), Rate::new(5, 1));
        assert_eq!(Rate::new(u32::MAX, u32::MAX), Rate::new(RATE_MAX, RATE_MAX));
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate::new(2, 3).unwrap();
        let mut used = Used::default();
        assert!((0..3).all(|_| used.take(rate).is_ok()));
        assert_eq!(used.take(rate), Err(500));
        used.recover(rate, 499);
        assert_eq!(used.take(rate), Err(1));
        used.recover(rate, 1);
        assert_eq!(used.take(rate), Ok(()));
        used.recover(rate, u64::MAX);
        assert!(used.is_nothing());
    }

    proptest! {
        /// Within every stretch of time, not only from the start on, no more than the burst and what the rate gives.
        #[test]
        fn never_more_than_burst_and_rate(
            per_second in 1u32..5_000,
            burst in 1u32..300,
            steps in prop::collection::vec((0u64..700, 0u32..40), 1..80),
        ) {
            let rate = Rate::new(per_second, burst).unwrap();
            let mut used = Used::default();
            let (mut now, mut admitted) = (0, Vec::new());
            for (elapsed, tries) in steps {
                now += elapsed;
                used.recover(rate, elapsed);
                let taken = (0..tries).filter(|_| used.take(rate).is_ok()).count() as u64;
                admitted.push((now, taken));
                for (index, (from, _)) in admitted.iter().enumerate() {
                    let sum: u64 = admitted[index..].iter().map(|(_, taken)| taken).sum();
                    let most = u64::from(burst) * 1_000 + u64::from(per_second) * (now - from);
                    prop_assert!(sum * 1_000 <= most, "{} in {} ms", sum, now - from);
                }
            }
        }

        /// Whoever waits as long as he is told gets his token, and nobody waits a millisecond too long.
        #[test]
        fn the_wait_is_exact(per_second in 1u32..=RATE_MAX, burst in 1u32..=RATE_MAX, before in 0u64..2_000) {
            let rate = Rate::new(per_second, burst).unwrap();
            let mut used = Used(burst * TOKEN);
            used.recover(rate, before);
            if let Err(wait) = used.take(rate) {
                let mut early = used;
                early.recover(rate, wait - 1);
                prop_assert!(early.take(rate).is_err());
                used.recover(rate, wait);
                prop_assert_eq!(used.take(rate), Ok(()));
            }
        }
    }
}
