//! One seed again, with a trace.

use std::fmt::Write as _;

use super::setup::Setup;
use super::sweep::caught;
use super::trace::Wanted;

/// How many lines about a room are shown when no trace was asked for.
const LINES_OF_A_FAILURE: usize = 40;

/// The setup as text.
#[must_use]
pub fn describe(setup: &Setup) -> String {
    let mut text = String::new();
    let Setup { seed, weather, regions, ttl_ms, phase_ms, shards, core, limits, .. } = setup;
    let _written = writeln!(
        text,
        "seed {seed}: {weather:?}, {} nodes in regions {regions:?}, ttl {ttl_ms} ms, {shards} shards, {phase_ms} ms of faults, lag {} ms, lazy {}, timers late {}",
        setup.nodes(),
        setup.discovery_lag_ms,
        setup.lazy_permille,
        setup.timers_late_ms,
    );
    let _written = writeln!(text, "  delays {:?}", setup.delays);
    if setup.small_tables() {
        let _written = writeln!(text, "  capacities {:?}", setup.capacities);
    }
    let _written = writeln!(text, "  {limits:?}");
    for fault in &setup.faults {
        let _written = writeln!(
            text,
            "  fault at {} ms for {} ms: {} {:?}",
            fault.at_ms,
            fault.lasts_ms,
            fault.kind.name(),
            fault.nodes
        );
    }
    let _written = writeln!(text, "  healed in the end: {core:?}");
    text
}

/// Runs a seed again; the text to print, and whether it is right.
#[must_use]
pub fn replay(seed: u64, wanted: Wanted) -> (String, bool) {
    let setup = Setup::draw(seed);
    let mut text = describe(&setup);
    let most = if wanted == Wanted::Nothing { 0 } else { usize::MAX };
    let outcome = caught(&setup, None, wanted, most);
    for line in &outcome.lines {
        let _written = writeln!(text, "{line}");
    }
    let _written = writeln!(
        text,
        "{} client steps, trace {:016x}, core one after {:?} ms, at most {} outputs at once",
        outcome.steps, outcome.hash, outcome.converged_ms, outcome.outputs_most
    );
    match &outcome.violation {
        None => {
            let _written = writeln!(text, "passed");
        }
        Some(violation) => {
            let _written =
                writeln!(text, "FAILED at {} ms: {}: {}", violation.at_ms, violation.check, violation.text);
            if wanted == Wanted::Nothing {
                let _written = write!(text, "{}", last_lines(&setup));
            }
        }
    }
    (text, outcome.violation.is_none())
}

/// The last lines before a violation, about its room.
#[must_use]
pub fn last_lines(setup: &Setup) -> String {
    let found = caught(setup, None, Wanted::Nothing, 0).violation;
    let Some(violation) = found else { return String::new() };
    let wanted = violation.room.map_or(Wanted::Full, Wanted::Room);
    let mut text = String::new();
    for line in caught(setup, None, wanted, LINES_OF_A_FAILURE).lines {
        let _written = writeln!(text, "  {line}");
    }
    text
}
