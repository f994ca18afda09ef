//! Whether figures may be believed.

use super::rounds::Measured;
use super::subject::Kind;

/// A ratio that differs by more than this share of its median between rounds was not measured.
const SPREAD_MAX: f64 = 0.20;
/// Below this share of the other side's throughput, the two did not do comparable work.
const THROUGHPUT_SHARE_MIN: f64 = 0.5;

/// Which rules hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// All of them.
    Full,
    /// Only those about faults: a smoke run is too short for the rest.
    FaultsOnly,
}

/// Median, smallest and largest of some figures.
#[derive(Clone, Copy)]
pub struct Spread {
    /// The middle one, or the mean of the two middle ones.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of at least one figure.
    #[must_use]
    pub fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { median, min, max })
    }

    /// How far apart the extremes are, as a share of the median.
    #[must_use]
    pub fn width(self) -> f64 {
        (self.max - self.min) / self.median
    }
}

/// shardgate's CPU per unit of work divided by HAProxy's, round by round; empty when either was not measured.
#[must_use]
pub fn ratios(rounds: &[Vec<Measured>]) -> Vec<f64> {
    let both =
        rounds.iter().filter_map(|round| Some((of(round, Kind::Shardgate)?, of(round, Kind::HaProxy)?)));
    both.map(|(ours, theirs)| ours.cpu_us() / theirs.cpu_us()).collect()
}

/// Why the figures are void; nothing when they stand.
#[must_use]
pub fn void_reasons(rounds: &[Vec<Measured>], rules: Rules) -> Vec<String> {
    let mut reasons = Vec::new();
    for (number, round) in (1..).zip(rounds) {
        for measured in round {
            let faults = measured.report.faults();
            if !faults.is_empty() {
                reasons.push(format!("round {number}, {}: {}", measured.kind.name(), faults.join(", ")));
            }
        }
        let both = of(round, Kind::Shardgate).zip(of(round, Kind::HaProxy));
        let Some((ours, theirs)) = both.filter(|_| rules == Rules::Full) else { continue };
        let share = ours.per_second() / theirs.per_second();
        if share < THROUGHPUT_SHARE_MIN {
            reasons.push(format!("round {number}: shardgate's throughput is {share:.2} of HAProxy's"));
        }
        // HAProxy may be that slow, but not because it waited for something else than its CPU.
        let busy = theirs.busy() / ours.busy();
        if 1.0 / share < THROUGHPUT_SHARE_MIN && busy < THROUGHPUT_SHARE_MIN {
            reasons.push(format!("round {number}: HAProxy used its CPU for {busy:.2} of shardgate's time"));
        }
    }
    let spread = Spread::of(ratios(rounds).into_iter()).map(Spread::width);
    if let Some(width) = spread.filter(|width| rules == Rules::Full && *width > SPREAD_MAX) {
        reasons.push(format!(
            "not measurable now: the ratio's spread is {:.0} % (at most {:.0} %)",
            width * 100.0,
            SPREAD_MAX * 100.0
        ));
    }
    reasons
}

fn of(round: &[Measured], kind: Kind) -> Option<&Measured> {
    round.iter().find(|measured| measured.kind == kind)
}

#[cfg(test)]
mod tests {
    use super::super::cpu::CpuSpent;
    use super::super::load_report::LoadReport;
    use super::*;

    fn measured(kind: Kind, done: u64, cpu_us: u64) -> Measured {
        let report = LoadReport { done, busy_us: 1_000_000, ..LoadReport::default() };
        Measured { kind, report, cpu: CpuSpent { ns: cpu_us * done * 1000, threads_ended: 0 } }
    }

    fn round(ours: u64, theirs: u64) -> Vec<Measured> {
        vec![measured(Kind::HaProxy, 1000, theirs), measured(Kind::Shardgate, 1000, ours)]
    }

    #[test]
    fn steady_ratios_stand_and_wide_ones_are_void() {
        let steady = [round(40, 50), round(41, 50), round(44, 50)];
        assert_eq!(void_reasons(&steady, Rules::Full), Vec::<String>::new());
        assert_eq!(ratios(&steady), [0.8, 0.82, 0.88]);
        let wide = [round(40, 50), round(41, 50), round(50, 50)];
        assert!(void_reasons(&wide, Rules::Full)[0].contains("the ratio's spread is 24 % (at most 20 %)"));
        assert_eq!(void_reasons(&wide, Rules::FaultsOnly), Vec::<String>::new());
    }

    #[test]
    fn faults_and_unequal_throughput_are_void() {
        let mut faulty = round(40, 50);
        faulty[0].report.errors = 2;
        faulty[1].report.moved = 1;
        let reasons = ["round 1, haproxy: 2 errors", "round 1, shardgate: 1 rooms on two shards"];
        assert_eq!(void_reasons(&[faulty], Rules::FaultsOnly), reasons);
        let slow = vec![measured(Kind::HaProxy, 1000, 50), measured(Kind::Shardgate, 499, 60)];
        assert_eq!(
            void_reasons(&[slow], Rules::Full),
            ["round 1: shardgate's throughput is 0.50 of HAProxy's"]
        );
        let fast = vec![measured(Kind::HaProxy, 1000, 50), measured(Kind::Shardgate, 3000, 20)];
        assert_eq!(void_reasons(&[fast], Rules::Full), Vec::<String>::new());
        let alone = vec![measured(Kind::HaProxy, 1000, 20), measured(Kind::Shardgate, 3000, 20)];
        assert_eq!(
            void_reasons(&[alone], Rules::Full),
            ["round 1: HAProxy used its CPU for 0.33 of shardgate's time"]
        );
        let nothing = vec![measured(Kind::Relay, 0, 0)];
        assert_eq!(void_reasons(&[nothing], Rules::FaultsOnly), ["round 1, relay: nothing answered"]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_ones() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0].into_iter()).unwrap();
        assert_eq!((spread.median, spread.min, spread.max, spread.width()), (2.5, 1.0, 4.0, 1.2));
        assert!(Spread::of(std::iter::empty()).is_none());
    }
}
