//! What a sweep is told as: for people, or as JSON.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;

use super::coverage::Sort;
use super::mutant::Mutant;
use super::options::Options;
use super::replay::{describe, last_lines};
use super::setup::Setup;
use super::sweep::{Stop, Swept, kept_seeds, sweep};
use crate::scenario;

/// From so many seeds on, everything on the lists must have been seen.
const ALL_SEEN_FROM: u64 = 1_000;
/// How many failures are told with their traces.
const TOLD_MAX: usize = 3;
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

type Progress<'p> = &'p (dyn Fn(&str) + Sync);

fn seeds_of(options: &Options) -> Vec<u64> {
    let mut seeds = kept_seeds();
    seeds.extend(options.from..options.from.saturating_add(options.seeds));
    seeds
}

fn run(options: &Options, mutant: Option<Mutant>, stop: Stop, what: &str, progress: Progress<'_>) -> Swept {
    let seeds = seeds_of(options);
    let said = Mutex::new(Instant::now());
    let total = seeds.len();
    sweep(&seeds, mutant, options.jobs, stop, &|done, failed| {
        if let Ok(mut said) = said.lock()
            && said.elapsed() >= PROGRESS_EVERY
        {
            *said = Instant::now();
            progress(&format!("{what}{done} of {total} seeds, {failed} failed"));
        }
    })
}

fn passed(options: &Options, swept: &Swept) -> bool {
    swept.failures.is_empty() && (options.seeds < ALL_SEEN_FROM || swept.unseen().is_empty())
}

/// A sweep, for people.
#[must_use]
pub fn sweep_text(options: &Options, progress: Progress<'_>) -> (String, bool) {
    let swept = run(options, None, Stop::AtTheEnd, "", progress);
    let mut text = String::new();
    let mut heading = None;
    for (sort, name, count) in swept.coverage.wanted() {
        if heading != Some(sort) {
            heading = Some(sort);
            let _written = writeln!(text, "{} (seeds that saw it)", sort.heading());
        }
        let _written =
            writeln!(text, "  {count:>7}  {name}{}", if count == 0 { "   <- never seen" } else { "" });
    }
    for (sort, name) in swept.coverage.unlisted() {
        let _written = writeln!(text, "  also seen: {}: {name}", sort.heading());
    }
    for failure in swept.failures.iter().take(TOLD_MAX) {
        let setup = Setup::draw(failure.seed);
        let violation = &failure.violation;
        let _written = writeln!(text, "\nFAILED: {}: {}", violation.check, violation.text);
        let _written = write!(text, "{}{}", describe(&setup), last_lines(&setup));
        let _written = writeln!(text, "  replay: tests/run sim --seed {}", failure.seed);
    }
    for failure in swept.failures.iter().skip(TOLD_MAX) {
        let _written = writeln!(
            text,
            "FAILED: seed {}: {}: {}",
            failure.seed, failure.violation.check, failure.violation.text
        );
    }
    for (check, count) in &swept.failed_checks {
        let _written = writeln!(text, "{count:>7} seeds failed: {check}");
    }
    let _written = writeln!(text, "{}", summary(&swept));
    let passed = passed(options, &swept);
    let unseen = if options.seeds < ALL_SEEN_FROM { 0 } else { swept.unseen().len() as u64 };
    let failed: u64 = swept.failed_checks.values().sum::<u64>();
    let _written = writeln!(text, "{} passed, {} failed, 0 skipped", swept.seeds - failed, failed + unseen);
    (text, passed)
}

fn summary(swept: &Swept) -> String {
    let Swept { seeds, repeated, steps, seconds, outputs_most, .. } = swept;
    let failed: u64 = swept.failed_checks.values().sum();
    let at = |share: usize| {
        let last = swept.converged_ms.len().saturating_sub(1);
        swept.converged_ms.get(last * share / 100).copied().unwrap_or(0)
    };
    format!(
        "{seeds} seeds, {failed} failed; {steps} client steps, {repeated} seeds twice with the same trace, {seconds:.1} s; core one after p50 {} ms, p99 {} ms, most {} ms; at most {outputs_most} outputs at once",
        at(50),
        at(99),
        at(100),
    )
}

/// A sweep, as one JSON document.
#[must_use]
pub fn sweep_json(options: &Options, progress: Progress<'_>) -> (String, bool) {
    let swept = run(options, None, Stop::AtTheEnd, "", progress);
    let seen: Vec<_> = swept
        .coverage
        .wanted()
        .into_iter()
        .map(
            |(sort, name, seeds): (Sort, _, _)| json!({"sort": sort.heading(), "name": name, "seeds": seeds}),
        )
        .collect();
    let failures: Vec<_> = swept
        .failures
        .iter()
        .map(|failure| {
            let violation = &failure.violation;
            json!({"seed": failure.seed, "check": violation.check, "at_ms": violation.at_ms, "text": violation.text})
        })
        .collect();
    let document = json!({
        "seeds": swept.seeds,
        "steps": swept.steps,
        "seconds": swept.seconds,
        "repeated": swept.repeated,
        "failed": swept.failed_checks.values().sum::<u64>(),
        "failures": failures,
        "seen": seen,
        "unseen": swept.unseen(),
        "outputs_most": swept.outputs_most,
    });
    (document.to_string(), passed(options, &swept))
}

/// One planted fault.
#[must_use]
pub fn mutate(name: &str, options: &Options, progress: Progress<'_>) -> (String, bool) {
    match Mutant::named(name) {
        Some(mutant) => hunt(name, mutant, options, progress),
        None => (format!("{name} is no planted fault\n{}", list_mutants().0), false),
    }
}

/// All planted faults.
#[must_use]
pub fn mutants(options: &Options, progress: Progress<'_>) -> (String, bool) {
    let all = Mutant::all();
    let mut text = String::new();
    let every = all.len();
    let mut caught_all = 0;
    for (name, _, mutant) in all {
        let (line, caught) = hunt(name, mutant, options, progress);
        caught_all += usize::from(caught);
        let _written = writeln!(text, "{line}");
    }
    if text.is_empty() {
        return (list_mutants().0, false);
    }
    let _written = writeln!(text, "{caught_all} passed, {} failed, 0 skipped", every - caught_all);
    (text, every == caught_all)
}

/// So many seeds first: most faults are caught by them, and scenarios take a moment.
const FIRST_SEEDS: u64 = 30;

/// Some seeds, then the scenarios, then all other seeds, until the fault is caught.
fn hunt(name: &str, mutant: Mutant, options: &Options, progress: Progress<'_>) -> (String, bool) {
    let sweep = |from: u64, seeds: u64| {
        let some = Options { from, seeds, ..options.clone() };
        run(&some, Some(mutant), Stop::AtFirst, &format!("{name}: "), progress)
    };
    let first = options.seeds.min(FIRST_SEEDS);
    let swept = sweep(options.from, first);
    if let Some(line) = caught_by_seed(name, &swept) {
        return (line, true);
    }
    match noticed_by_scenarios(name) {
        Ok(names) if !names.is_empty() => {
            let names = names.join(", ");
            let seeds = swept.seeds;
            return (format!("{name:<24} not caught by {seeds} seeds, but by the scenarios {names}"), true);
        }
        Ok(_) => {}
        Err(error) => return (format!("{name:<24} the scenarios cannot be played: {error}"), false),
    }
    if options.seeds > first {
        let swept = sweep(options.from + first, options.seeds - first);
        if let Some(line) = caught_by_seed(name, &swept) {
            return (line, true);
        }
    }
    (format!("{name:<24} NOT caught by {} seeds, nor by a scenario", options.seeds), false)
}

fn caught_by_seed(name: &str, swept: &Swept) -> Option<String> {
    let Swept { seeds, seconds, failures, .. } = swept;
    let failure = failures.first()?;
    let check = failure.violation.check;
    let seed = failure.seed;
    Some(format!("{name:<24} caught by seed {seed:>5} ({seeds} run, {seconds:.0} s): {check}"))
}

/// The scenarios that notice a planted fault. They read its name from the environment, so they are played by a process of their own.
fn noticed_by_scenarios(name: &str) -> std::io::Result<Vec<String>> {
    let mut player = std::process::Command::new(std::env::current_exe()?);
    let played = player.arg("--scenarios").env("SHARDGATE_MUTATION", name).output()?;
    let text = String::from_utf8_lossy(&played.stdout);
    // Where none does, there is an empty line.
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The scenarios whose traces are not the expected ones, by their numbers.
#[must_use]
pub fn scenarios() -> (String, bool) {
    let fails = |path: &std::path::PathBuf| {
        let played = std::panic::catch_unwind(|| scenario::check(path));
        !matches!(played, Ok(Ok(())))
    };
    let stems = scenario::files().into_iter().filter(fails);
    let names: Vec<String> = stems
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .map(|stem| stem.split('-').next().unwrap_or(&stem).to_owned())
        .collect();
    (names.join("\n"), names.is_empty())
}

/// The names of the planted faults.
#[must_use]
pub fn list_mutants() -> (String, bool) {
    let names: Vec<String> =
        Mutant::all().into_iter().map(|(name, what, _)| format!("{name:<28} {what}")).collect();
    if names.is_empty() {
        return ("no planted faults: build with --features test-hooks".to_owned(), false);
    }
    (names.join("\n"), true)
}
