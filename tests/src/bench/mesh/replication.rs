//! What replication costs the data plane: the same load on a node without peers and on one with a peer.

use std::io;
use std::time::Duration;

use serde_json::json;

use super::super::cpu::CpuSpent;
use super::super::process::Obedient;
use super::super::report::{Report, shown};
use super::super::rounds::ask_report;
use super::super::stage::warm;
use super::super::subject::Kind;
use super::super::verdict::Spread;
use super::fleet::{Fleet, Path, Spec};
use super::run::Run;

const TITLE: &str = "replication and the data plane";
const CONNECTIONS: usize = 64;
/// Short, so that the machine's moods hit all alike.
const TURN: Duration = Duration::from_millis(500);
const TURNS_PER_SECOND: u32 = 2;
/// Of the throughput without a peer, at least so much is wanted with one.
const SHARE_MIN: f64 = 0.95;
/// New rooms asked for in a turn.
const NEW_ROOMS: usize = 3_000;

struct Lane {
    fleet: Fleet,
    known: Obedient,
    fresh: Obedient,
    rooms_used: usize,
    /// By work, then by round: answers a second, and CPU microseconds for each.
    rounds: [Vec<(f64, f64)>; 2],
}

#[derive(Clone, Copy)]
enum Work {
    Known,
    New,
}

/// Four meshes take turns: HAProxy and shardgate, each without and with a peer.
pub fn measure(run: &Run<'_>, report: &mut Report) -> io::Result<()> {
    let mut lanes = Vec::new();
    for kind in run.kinds() {
        for (number, path) in [(4, Path::Alone), (5, Path::Direct)] {
            lanes.push(start(run, kind, number, path)?);
        }
    }
    for _ in 0..run.options.rounds {
        for work in [Work::Known, Work::New] {
            one_round(&mut lanes, work, run.options.seconds * TURNS_PER_SECOND, report)?;
        }
    }
    for (work, what) in [(Work::Known, "known rooms"), (Work::New, "new rooms")] {
        report.say(format!(
            "\n{TITLE}: {what}, {CONNECTIONS} connections, medians of {} rounds [min-max]",
            run.options.rounds
        ));
        for kind in run.kinds() {
            tell(&lanes, kind, work, what, report);
        }
    }
    Ok(())
}

fn start(run: &Run<'_>, kind: Kind, number: u8, path: Path) -> io::Result<Lane> {
    let nodes = if path == Path::Alone { 1 } else { 2 };
    let spec = Spec { path, regions: vec![0; nodes], table_size: 1_000_000, ..Spec::of(number, nodes) };
    let fleet = Fleet::start(kind, run.ground, spec)?;
    let mut known = run.load("http", fleet.frontend(0), CONNECTIONS)?;
    let fresh = run.load("rooms", fleet.frontend(0), CONNECTIONS)?;
    warm(&mut known)?;
    Ok(Lane { fleet, known, fresh, rooms_used: 20_000, rounds: [vec![], vec![]] })
}

fn one_round(lanes: &mut [Lane], work: Work, turns: u32, report: &mut Report) -> io::Result<()> {
    let mut sums = vec![(0_u64, 0_u64, CpuSpent::default()); lanes.len()];
    for turn in 0..turns {
        for place in 0..lanes.len() {
            // Forwards and backwards by turns, so that the machine's moods hit all alike.
            let index = if turn.is_multiple_of(2) { place } else { lanes.len() - 1 - place };
            let lane = &mut lanes[index];
            let before = lane.fleet.cpu(0)?;
            let done = match work {
                Work::Known => {
                    lane.known.ask(&format!("run {}", TURN.as_millis()), TURN + Duration::from_secs(30))?;
                    ask_report(&mut lane.known, "report", Duration::from_secs(10))?
                }
                Work::New => {
                    let first = lane.rooms_used;
                    lane.rooms_used += NEW_ROOMS;
                    let order = format!("rooms {first} {NEW_ROOMS} 1 0");
                    ask_report(&mut lane.fresh, &order, Duration::from_secs(60))?
                }
            };
            report.add_void(TITLE, done.faults());
            sums[index].0 += done.done;
            sums[index].1 += done.busy_us;
            sums[index].2 += lane.fleet.cpu(0)?.since(&before);
        }
    }
    for (lane, (done, busy_us, cpu)) in lanes.iter_mut().zip(sums) {
        let figures = (done as f64 * 1e6 / busy_us as f64, cpu.ns as f64 / 1000.0 / done as f64);
        lane.rounds[work as usize].push(figures);
    }
    Ok(())
}

fn tell(lanes: &[Lane], kind: Kind, work: Work, what: &str, report: &mut Report) {
    let of = |alone: bool| {
        let wanted = |lane: &&Lane| lane.fleet.kind == kind && (lane.fleet.spec.path == Path::Alone) == alone;
        lanes.iter().find(wanted).map_or(&[][..], |lane| &lane.rounds[work as usize])
    };
    let (off, on) = (of(true), of(false));
    let spread =
        |rounds: &[(f64, f64)], figure: fn(&(f64, f64)) -> f64| Spread::of(rounds.iter().map(figure));
    for (rounds, peers) in [(off, "no peer"), (on, "one peer")] {
        let both = spread(rounds, |round| round.0).zip(spread(rounds, |round| round.1));
        let Some((per_second, cpu)) = both else { return };
        let name = kind.name();
        report.say(format!(
            "{name:<10} {peers:<9} {:>24}/s {:>21} us CPU",
            shown(per_second, 0),
            shown(cpu, 1)
        ));
        report.add_section(json!({
            "title": TITLE, "subject": name, "work": what, "peers": peers,
            "per_second": rounds.iter().map(|round| round.0).collect::<Vec<_>>(),
            "cpu_us": rounds.iter().map(|round| round.1).collect::<Vec<_>>(),
        }));
    }
    let ratios = |share: fn(&(f64, f64), &(f64, f64)) -> f64| {
        Spread::of(off.iter().zip(on).map(|(off, on)| share(off, on)))
    };
    let both = ratios(|off, on| on.0 / off.0).zip(ratios(|off, on| off.1 / on.1));
    let Some((measured, by_cpu)) = both else { return };
    report.say(format!(
        "{:<10} throughput with a peer / without: {}; by CPU per request: {}",
        kind.name(),
        shown(measured, 3),
        shown(by_cpu, 3)
    ));
    // Of requests for known rooms: a new one asks its home by design. By CPU, since that is what limits a core, and others' jobs on
    // the machine do not change it as they change what is measured by the clock.
    if kind == Kind::Shardgate && matches!(work, Work::Known) {
        let (lost, most) = (100.0 * (1.0 - by_cpu.median), 100.0 * (1.0 - SHARE_MIN));
        report.judge_at_most(TITLE, "throughput lost to a peer, %,", lost, most);
    }
}
