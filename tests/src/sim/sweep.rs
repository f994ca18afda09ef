//! Many seeds on several threads: kept ones first, then a range; what they saw, and the first that were wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::check::Violation;
use super::coverage::Coverage;
use super::mutant::Mutant;
use super::run::{Outcome, run_seed};
use super::setup::Setup;
use super::trace::Wanted;

/// The kept seeds, one a line, with the reason behind it.
const KEPT: &str = include_str!("../../sim/seeds.txt");
/// Every so many seeds one is run twice.
const TWICE_EVERY: u64 = 25;
/// How many failures are kept.
const FAILURES_MAX: usize = 1_000;

/// The seeds of `tests/sim/seeds.txt`.
///
/// # Panics
/// When a line of it does not begin with a number.
#[must_use]
pub fn kept_seeds() -> Vec<u64> {
    let lines = KEPT.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().expect("a seed is a number")).collect()
}

/// A seed that was wrong.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was wrong.
    pub violation: Violation,
}

/// What many seeds gave.
#[derive(Debug, Default)]
pub struct Swept {
    /// How many were run.
    pub seeds: u64,
    /// How many were run twice, with the same trace.
    pub repeated: u64,
    /// How many client steps there were.
    pub steps: u64,
    /// What was seen, by how many seeds.
    pub coverage: Coverage,
    /// From the heal until the core was one, for each seed, sorted.
    pub converged_ms: Vec<u64>,
    /// The longest queue of outputs.
    pub outputs_most: usize,
    /// Those that were wrong, by seed.
    pub failures: Vec<Failure>,
    /// How many seeds failed each check.
    pub failed_checks: BTreeMap<&'static str, u64>,
    /// The first seed that was wrong, with its place in the order.
    pub seconds: f64,
}

/// When to stop early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Never.
    AtTheEnd,
    /// At the first seed that is wrong.
    AtFirst,
}

/// Runs these seeds.
#[must_use]
pub fn sweep(
    seeds: &[u64],
    mutant: Option<Mutant>,
    jobs: usize,
    stop: Stop,
    progress: &(dyn Fn(u64, usize) + Sync),
) -> Swept {
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let enough = AtomicBool::new(false);
    let repeated = AtomicU64::new(0);
    let swept = Mutex::new(Swept::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                    let outcome = run_checked(*seed, mutant, &repeated);
                    let mut swept = swept.lock().unwrap_or_else(PoisonError::into_inner);
                    if outcome.violation.is_some() && stop == Stop::AtFirst {
                        enough.store(true, Ordering::Relaxed);
                    }
                    swept.take(outcome);
                    progress(swept.seeds, swept.failures.len());
                }
            });
        }
    });
    let mut swept = swept.into_inner().unwrap_or_else(PoisonError::into_inner);
    swept.repeated = repeated.into_inner();
    swept.converged_ms.sort_unstable();
    swept.failures.sort_by_key(|failure| failure.seed);
    swept.seconds = began.elapsed().as_secs_f64();
    swept
}

/// Runs a seed, some twice; a panic of the core is a failure of the seed.
fn run_checked(seed: u64, mutant: Option<Mutant>, repeated: &AtomicU64) -> Outcome {
    let setup = Setup::draw(seed);
    let mut outcome = caught(&setup, mutant, Wanted::Nothing, 0);
    if mutant.is_some()
        && outcome.violation.is_some()
        && caught(&setup, None, Wanted::Nothing, 0).violation.is_some()
    {
        // What fails without the planted fault does not show it.
        outcome.violation = None;
    }
    if seed.is_multiple_of(TWICE_EVERY) && outcome.violation.is_none() {
        let again = caught(&setup, mutant, Wanted::Nothing, 0);
        repeated.fetch_add(1, Ordering::Relaxed);
        if again.hash != outcome.hash {
            let text = format!("{:x}, then {:x}", outcome.hash, again.hash);
            let check = "the same seed gives the same trace";
            outcome.violation = Some(Violation { check, at_ms: 0, room: None, text });
        }
    }
    outcome
}

/// Runs a seed; a panic is told as a violation.
#[must_use]
pub fn caught(setup: &Setup, mutant: Option<Mutant>, wanted: Wanted, lines_most: usize) -> Outcome {
    let run = || run_seed(setup, mutant, wanted, lines_most);
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Outcome {
            seed: setup.seed,
            violation: Some(Violation {
                check: "nothing panics",
                at_ms: 0,
                room: None,
                text: text.unwrap_or_default(),
            }),
            coverage: Coverage::default(),
            hash: 0,
            steps: 0,
            converged_ms: None,
            outputs_most: 0,
            lines: Vec::new(),
        }
    })
}

impl Swept {
    fn take(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.steps += outcome.steps;
        self.coverage.add_seed(&outcome.coverage);
        self.converged_ms.extend(outcome.converged_ms);
        self.outputs_most = self.outputs_most.max(outcome.outputs_most);
        if let Some(violation) = outcome.violation {
            *self.failed_checks.entry(violation.check).or_default() += 1;
            if self.failures.len() < FAILURES_MAX {
                self.failures.push(Failure { seed: outcome.seed, violation });
            }
        }
    }

    /// What no seed has seen.
    #[must_use]
    pub fn unseen(&self) -> Vec<String> {
        let wanted = self.coverage.wanted().into_iter().filter(|(_, _, count)| *count == 0);
        wanted.map(|(sort, name, _)| format!("{}: {name}", sort.heading())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_seeds_are_numbers() {
        assert!(kept_seeds().len() > 20);
    }
}
