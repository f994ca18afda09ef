//! Large tables: what an entry costs in memory and CPU, and how long a node that restarts empty takes until it has all of them.

use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::process::Obedient;
use super::super::report::{FLOOR, Report, grouped, shown};
use super::super::subject::Kind;
use super::super::verdict::Spread;
use super::fleet::{Fleet, Spec};
use super::run::{Rooms, Run, ask_rooms, ratio};
use super::traffic::{cpu_us_each, cpus};

const TITLE: &str = "large tables";
const CONNECTIONS: usize = 64;
/// Rooms asked for before memory is first read: connections, buffers and code are there then.
const WARMING: usize = 2_000;
/// For allocators that give back late.
const SETTLE: Duration = Duration::from_secs(2);
const RESTARTED_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// The wanted limit.
const ENTRY_BYTES_MAX: f64 = 250.0;

struct Lane {
    fleet: Fleet,
    load: Obedient,
    resident_before: [u64; 2],
    entries: usize,
}

/// What one restart took.
struct Restarted {
    /// Until it says that it serves.
    serves: Duration,
    /// Until it serves and has all entries.
    complete: Duration,
    /// CPU of the teacher and of the restarted node.
    cpu_ms: [f64; 2],
}

/// Fills both meshes in steps; at each step restarts B in turns.
pub fn measure(run: &Run<'_>, report: &mut Report) -> io::Result<()> {
    let steps: &[(usize, u32)] = run.sized(&[(200_000, 5), (1_000_000, 3)], &[(10_000, 1)]);
    let largest = steps.last().map_or(0, |(entries, _)| *entries);
    let spec = Spec { table_size: largest + largest / 10 + WARMING, ..Spec::of(3, 2) };
    let mut lanes = Vec::new();
    for fleet in run.fleets(&spec)? {
        let mut load = run.load("rooms", fleet.frontend(0), CONNECTIONS)?;
        let name = fleet.kind.name();
        let warming = Rooms { first: 0, count: WARMING, times: 1, rate: 0 };
        ask_rooms(&mut load, warming, name, report)?;
        fleet.wait_replicated(WARMING as u64)?;
        sleep(SETTLE);
        let resident_before = [fleet.resident_bytes(0)?, fleet.resident_bytes(1)?];
        lanes.push(Lane { fleet, load, resident_before, entries: WARMING });
    }
    for (entries, restarts) in steps {
        report.say(format!("\n{TITLE}: {} entries", grouped(*entries as u64)));
        for lane in &mut lanes {
            fill(lane, *entries, report)?;
        }
        restart_in_turns(&mut lanes, *entries, *restarts, report)?;
    }
    Ok(())
}

fn fill(lane: &mut Lane, entries: usize, report: &mut Report) -> io::Result<()> {
    let name = lane.fleet.kind.name();
    let (before, began) = (cpus(&lane.fleet)?, Instant::now());
    let rooms = Rooms { first: lane.entries, count: entries - lane.entries, times: 1, rate: 0 };
    ask_rooms(&mut lane.load, rooms, name, report)?;
    lane.fleet.wait_replicated(entries as u64)?;
    let took = began.elapsed().as_secs_f64();
    let [a_us, b_us] = cpu_us_each(&lane.fleet, &before, rooms.count)?;
    lane.entries = entries;
    sleep(SETTLE);
    let bytes_each = |node: usize| -> io::Result<f64> {
        let grown = lane.fleet.resident_bytes(node)?.saturating_sub(lane.resident_before[node]);
        Ok(grown as f64 / (entries - WARMING) as f64)
    };
    let (a, b) = (bytes_each(0)?, bytes_each(1)?);
    report.say(format!(
        "{name:<10} {a:.0} bytes an entry at A, {b:.0} at B; filled with {}/s, CPU per new entry {a_us:.1} us A (whole request), {b_us:.1} us B",
        grouped((rooms.count as f64 / took) as u64)
    ));
    if lane.fleet.kind == Kind::Shardgate {
        report.judge_at_most(TITLE, "bytes an entry", a.max(b), ENTRY_BYTES_MAX);
    }
    report.add_section(json!({
        "title": TITLE, "subject": name, "entries": entries, "bytes_per_entry_a": a, "bytes_per_entry_b": b,
        "cpu_us_a": a_us, "cpu_us_b": b_us, "seconds": took,
    }));
    Ok(())
}

fn restart_in_turns(
    lanes: &mut [Lane],
    entries: usize,
    restarts: u32,
    report: &mut Report,
) -> io::Result<()> {
    let mut seen: Vec<Vec<Restarted>> = lanes.iter().map(|_| vec![]).collect();
    for _ in 0..restarts {
        for (lane, seen) in lanes.iter_mut().zip(&mut seen) {
            seen.push(restart(&mut lane.fleet, entries as u64)?);
        }
    }
    let mut medians = Vec::new();
    for (lane, seen) in lanes.iter().zip(&seen) {
        let name = lane.fleet.kind.name();
        let spread = |figure: &dyn Fn(&Restarted) -> f64| Spread::of(seen.iter().map(figure));
        let figures = [
            spread(&|restarted| restarted.complete.as_secs_f64()),
            spread(&|restarted| restarted.serves.as_secs_f64()),
            spread(&|restarted| restarted.cpu_ms[0]),
            spread(&|restarted| restarted.cpu_ms[1]),
        ];
        let [Some(complete), Some(serves), Some(a), Some(b)] = figures else { continue };
        report.say(format!(
            "{name:<10} B restarted empty: serves after {} s, has all after {} s; CPU {} ms A, {} ms B",
            shown(serves, 2),
            shown(complete, 2),
            shown(a, 0),
            shown(b, 0)
        ));
        let each: Vec<f64> = seen.iter().map(|restarted| restarted.complete.as_secs_f64()).collect();
        report.add_section(json!({
            "title": TITLE, "subject": name, "entries": entries, "serves_s": serves.median, "complete_s": each,
            "cpu_ms_a": a.median, "cpu_ms_b": b.median,
        }));
        medians.push((lane.fleet.kind, complete.median));
    }
    if let Some(ratio) = ratio(&medians) {
        report.say(format!("restart until all is there shardgate / HAProxy: {ratio:.3}"));
        report.judge(TITLE, &format!("restart with {} entries", grouped(entries as u64)), ratio, FLOOR);
    }
    Ok(())
}

fn restart(fleet: &mut Fleet, entries: u64) -> io::Result<Restarted> {
    fleet.kill_node(1);
    // The other node is to have noticed: its kernel refuses packets at once, or tells it of the connection's end.
    sleep(Duration::from_millis(300));
    let teacher = fleet.cpu(0)?;
    let began = fleet.start_node(1)?;
    let learner = fleet.cpu(1)?;
    let mut serves = None;
    loop {
        if serves.is_none() && fleet.is_serving(1) {
            serves = Some(began.elapsed());
        }
        if let Some(serves) = serves
            && fleet.entries(1).is_ok_and(|now| now >= entries)
        {
            let complete = began.elapsed();
            let ms = |spent: super::super::cpu::CpuSpent| spent.ns as f64 / 1e6;
            let cpu_ms = [ms(fleet.cpu(0)?.since(&teacher)), ms(fleet.cpu(1)?.since(&learner))];
            // Whoever is restarted next time is connected again by then.
            fleet.wait_for("is connected again", RESTARTED_MAX, |fleet| fleet.is_joined(1))?;
            return Ok(Restarted { serves, complete, cpu_ms });
        }
        if began.elapsed() > RESTARTED_MAX {
            let (name, now) = (fleet.kind.name(), fleet.entries(1).unwrap_or(0));
            return Err(io::Error::other(format!("{name}: {now} of {entries} entries 60 s after a restart")));
        }
        sleep(LOOK_EVERY);
    }
}
