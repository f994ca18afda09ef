//! Latencies in fixed memory, so that the load generator's own cost does not grow with the run.

use std::time::Duration;

/// Linear below 64 us, then 64 steps per power of two: at most 1.6 % wide.
const STEPS: usize = 64;
const BUCKETS: usize = STEPS * 26;

/// A histogram of latencies.
pub struct Latencies {
    counts: Vec<u32>,
    total: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Latencies {
    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(us)] += 1;
        self.total += 1;
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Counts all of another histogram's too.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// The latency in microseconds below which the given share of all lies; 0 without any.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted && seen > 0 {
                return lower_bound(index);
            }
        }
        0
    }
}

fn bucket(us: u64) -> usize {
    if us < STEPS as u64 {
        return us as usize;
    }
    let power = us.ilog2() as usize - STEPS.ilog2() as usize;
    let step = (us >> power) as usize - STEPS;
    (STEPS * (power + 1) + step).min(BUCKETS - 1)
}

fn lower_bound(index: usize) -> u64 {
    if index < STEPS {
        return index as u64;
    }
    let power = index / STEPS - 1;
    ((STEPS + index % STEPS) as u64) << power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_falls_into_the_bucket_that_starts_at_most_one_step_below() {
        for us in (0..5_000).chain([70_000, 1_000_000, 30_000_000]) {
            let low = lower_bound(bucket(us));
            assert!(low <= us && us - low <= us / STEPS as u64, "{us} in a bucket from {low}");
        }
    }

    #[test]
    fn quantiles_of_known_latencies() {
        let mut latencies = Latencies::default();
        (1..=60).for_each(|us| latencies.record(Duration::from_micros(us)));
        assert_eq!((latencies.quantile_us(0.5), latencies.quantile_us(0.99)), (30, 60));
        assert_eq!(Latencies::default().quantile_us(0.5), 0);
    }
}
