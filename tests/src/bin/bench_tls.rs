//! What TLS and HTTP/2 cost: CPU per request and per handshake, memory per idle tunnel; shardgate and HAProxy by turns. Started by
//! `tests/bench/run tls`.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use shardgate_tests::bench::cpu::load_average;
use shardgate_tests::bench::idle_tunnels::{IdleTunnels, of};
use shardgate_tests::bench::options::{Options, Size};
use shardgate_tests::bench::report::{Report, shown};
use shardgate_tests::bench::room_walk::ROOMS;
use shardgate_tests::bench::rounds::{Lane, Measured, measure, say_round};
use shardgate_tests::bench::site::Routing;
use shardgate_tests::bench::stage::{Stage, start_or_usage, warm};
use shardgate_tests::bench::subject::{Entrances, Kind};
use shardgate_tests::bench::verdict::Spread;

/// Long against the scheduler's slices, short against the machine's moods.
const TURN: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 5;
const SECONDS: u32 = 4;
/// 10,000 descriptors in the proxy.
const FULL: IdleTunnels = IdleTunnels { count: 5_000, settle: Duration::from_secs(60) };
const SMOKE: IdleTunnels = IdleTunnels { count: 300, settle: Duration::from_secs(2) };
/// What a tunnel over TLS may take; HAProxy takes 30.8 kB.
const TUNNEL_BYTES_MAX: f64 = 12_000.0;

/// What is measured by CPU.
struct Row {
    title: &'static str,
    unit: &'static str,
    /// As `bench_load` knows it.
    load: &'static str,
    /// Connections, and streams on each for HTTP/2.
    shape: &'static str,
    /// The ratio to HAProxy's CPU that is wanted.
    wanted: f64,
}

const ROWS: [Row; 6] = [
    Row { title: "HTTP/1.1 over TLS, keep-alive, 64", unit: "req", load: "tls", shape: "64", wanted: 0.8 },
    Row { title: "connection, full handshake", unit: "conn", load: "handshakes", shape: "64", wanted: 0.9 },
    Row { title: "connection, resumption", unit: "conn", load: "resumptions", shape: "64", wanted: 0.9 },
    Row { title: "HTTP/2, 64 x 1 streams", unit: "req", load: "h2", shape: "64x1", wanted: 0.9 },
    Row { title: "HTTP/2, 64 x 10 streams", unit: "req", load: "h2", shape: "64x10", wanted: 0.9 },
    Row { title: "HTTP/2, 8 x 100 streams", unit: "req", load: "h2", shape: "8x100", wanted: 0.9 },
];

struct Case<'a> {
    row: &'static Row,
    lanes: Vec<Lane<'a>>,
    rounds: Vec<Vec<Measured>>,
}

fn main() -> ExitCode {
    start_or_usage("bench_tls", ROUNDS, SECONDS, run)
}

fn run(options: &Options) -> io::Result<ExitCode> {
    let mut options = options.clone();
    // It knows no TLS.
    options.subjects.retain(|kind| *kind != Kind::Relay);
    let mut report = Report::new(options.output, options.size.rules());
    let idle = match options.size {
        Size::Full => FULL,
        Size::Smoke => SMOKE,
    };
    measure_memory(idle.as_allowed(&report)?, &options, &mut report)?;
    let mut stage = Stage::set(&options, Routing::ByAllRules, Entrances::PlainAndTls, &report)?;
    measure_cpu(&mut stage, &options, &mut report)?;
    Ok(report.end(stage.head("tls", &options)))
}

/// On proxies that have done nothing before, so that no memory of theirs is free for reuse.
fn measure_memory(idle: IdleTunnels, options: &Options, report: &mut Report) -> io::Result<()> {
    const TITLE: &str = "idle TLS tunnels";
    let stage = Stage::set(options, Routing::ByRoom, Entrances::PlainAndTls, report)?;
    let start = |subject: &_, tunnels: usize| stage.tls_load("tls-tunnels", subject, &tunnels.to_string());
    let each = idle.measure(TITLE, stage.subjects(), start, report)?;
    if let Some(ours) = of(&each, Kind::Shardgate) {
        report.judge_at_most(TITLE, "bytes per tunnel", ours, TUNNEL_BYTES_MAX);
    }
    Ok(())
}

fn measure_cpu(stage: &mut Stage, options: &Options, report: &mut Report) -> io::Result<()> {
    stage.warm_and_replicate(ROOMS as u64, report)?;
    let mut cases = Vec::new();
    for row in &ROWS {
        let mut lanes = Vec::new();
        for subject in stage.subjects() {
            let mut load = stage.tls_load(row.load, subject, row.shape)?;
            warm(&mut load)?;
            lanes.push(Lane { subject, load });
        }
        cases.push(Case { row, lanes, rounds: vec![] });
    }
    let logged_before = stage.logged_lines()?;
    for round in 1..=options.rounds {
        report.say(format!("round {round} of {}, load average {}", options.rounds, load_average()?));
        for Case { row, lanes, rounds } in &mut cases {
            let measured = measure(lanes, options.seconds, &format!("run {}", TURN.as_millis()), TURN)?;
            say_round(report, row.title, &measured);
            rounds.push(measured);
        }
    }
    let mut ratios = Vec::new();
    for Case { row, rounds, .. } in &cases {
        let ratio = report.add_rounds(row.title, row.unit, row.wanted, rounds);
        ratios.extend(ratio.map(|ratio| (*row, ratio)));
    }
    say_ratios(&ratios, report);
    stage.check_access_logs(&logged_before, cases.iter().flat_map(|case| &case.rounds).flatten(), report)
}

fn say_ratios(ratios: &[(&Row, Spread)], report: &Report) {
    if ratios.is_empty() {
        return;
    }
    report
        .say(format!("\n{:<34} {:>21} {:>7} {:>7}", "CPU shardgate / HAProxy", "ratio", "spread", "wanted"));
    for (row, ratio) in ratios {
        let (shown, width) = (shown(*ratio, 3), format!("{:.0} %", ratio.width() * 100.0));
        report.say(format!("{:<34} {shown:>21} {width:>7} {:>7.2}", row.title, row.wanted));
    }
}
