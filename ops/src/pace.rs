//! How fast something ends, and when the last of it will have. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// What is looked back on: people leave in waves, and what was an hour ago says nothing.
const WINDOW: Duration = Duration::from_mins(10);
/// Samples of a window at most; between two of them lies at least [`WINDOW`] / this.
const SAMPLES_MAX: u32 = 120;

/// How many were left, at moments since the beginning.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    samples: VecDeque<(Duration, u64)>,
}

/// What can be said of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Estimate {
    /// How many end in a minute; less than nothing when there are more and more. `None`: unknown.
    pub(crate) per_minute: Option<f64>,
    /// When the last one will have ended, if it goes on like this. `None`: unknown.
    pub(crate) ends_in: Option<Duration>,
}

impl Pace {
    /// Notes how many are left.
    pub(crate) fn note(&mut self, at: Duration, left: u64) {
        let close = WINDOW / SAMPLES_MAX;
        // The first one stays where it is, the last one moves on.
        if let [.., (before, _), (last, _)] = *self.samples.make_contiguous()
            && last.saturating_sub(before) < close
        {
            self.samples.pop_back();
        }
        self.samples.push_back((at, left));
        while self.samples.len() > 2 && at.saturating_sub(self.samples[1].0) >= WINDOW {
            self.samples.pop_front();
        }
    }

    /// By the window's first and last sample.
    pub(crate) fn estimate(&self) -> Estimate {
        let (Some((from, before)), Some((to, left))) = (self.samples.front(), self.samples.back()) else {
            return Estimate::default();
        };
        let minutes = to.saturating_sub(*from).as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return Estimate::default();
        }
        let per_minute = (*before as f64 - *left as f64) / minutes;
        let minutes_left = (per_minute > 0.0).then(|| *left as f64 / per_minute);
        // Beyond a year nothing is known.
        let ends_in = minutes_left.filter(|minutes| *minutes < 525_600.0);
        Estimate {
            per_minute: Some(per_minute),
            ends_in: ends_in.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(samples: &[(u64, u64)]) -> Pace {
        let mut pace = Pace::default();
        for (at, left) in samples {
            pace.note(Duration::from_secs(*at), *left);
        }
        pace
    }

    fn said(samples: &[(u64, u64)]) -> (Option<f64>, Option<u64>) {
        let Estimate { per_minute, ends_in } = pace(samples).estimate();
        (per_minute, ends_in.map(|ends_in| ends_in.as_secs()))
    }

    #[test]
    fn two_samples_are_needed() {
        assert_eq!(said(&[]), (None, None));
        assert_eq!(said(&[(0, 10)]), (None, None));
        assert_eq!(said(&[(0, 10), (0, 8)]), (None, None), "of one moment");
        assert_eq!(said(&[(0, 10), (60, 8)]), (Some(2.0), Some(240)));
    }

    #[test]
    fn what_does_not_end_has_no_end() {
        assert_eq!(said(&[(0, 10), (60, 10)]), (Some(0.0), None));
        assert_eq!(said(&[(0, 10), (60, 12)]), (Some(-2.0), None));
        assert_eq!(said(&[(0, 10), (60, 0)]), (Some(10.0), Some(0)));
        assert_eq!(said(&[(0, u64::MAX), (1, u64::MAX - 1)]).1, None, "too far to be believed");
    }

    #[test]
    fn the_past_is_forgotten() {
        // Nobody left for an hour, then one a minute.
        let mut samples: Vec<(u64, u64)> = (0..60).map(|minute| (minute * 60, 100)).collect();
        samples.extend((60..75).map(|minute| (minute * 60, 159 - minute)));
        assert_eq!(said(&samples), (Some(1.0), Some(85 * 60)));
    }

    #[test]
    fn samples_are_bounded() {
        let samples: Vec<(u64, u64)> = (0..20_000).map(|second| (second, 20_000 - second)).collect();
        let pace = pace(&samples);
        assert!(pace.samples.len() <= SAMPLES_MAX as usize + 2, "{}", pace.samples.len());
        assert_eq!(
            pace.estimate(),
            Estimate { per_minute: Some(60.0), ends_in: Some(Duration::from_secs(1)) }
        );
    }
}
