//! Memory per idle WebSocket tunnel and CPU per echoed message: shardgate, HAProxy and a bare relay. Started by `tests/bench/run tunnels`.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use shardgate_tests::bench::cpu::load_average;
use shardgate_tests::bench::idle_tunnels::{IdleTunnels, of, open};
use shardgate_tests::bench::options::{Options, Size};
use shardgate_tests::bench::report::{FLOOR, Report, grouped};
use shardgate_tests::bench::rounds::{Lane, measure, say_round};
use shardgate_tests::bench::site::Routing;
use shardgate_tests::bench::stage::{Stage, start_or_usage};
use shardgate_tests::bench::subject::{Entrances, Kind};

const TURN: Duration = Duration::from_secs(1);
const ROUNDS: u32 = 5;
const SECONDS: u32 = 5;

/// How much is asked of the subjects.
struct Measure {
    idle: IdleTunnels,
    active_tunnels: usize,
    messages_per_second: u32,
}

/// 9,000 tunnels are 18,000 descriptors in the proxy, of the 20,000 that the machines we know allow.
const FULL: Measure = Measure {
    idle: IdleTunnels { count: 9_000, settle: Duration::from_secs(60) },
    active_tunnels: 1_000,
    messages_per_second: 4_000,
};
const SMOKE: Measure = Measure {
    idle: IdleTunnels { count: 300, settle: Duration::from_secs(2) },
    active_tunnels: 100,
    messages_per_second: 1_000,
};

fn main() -> ExitCode {
    start_or_usage("bench_tunnels", ROUNDS, SECONDS, run)
}

fn run(options: &Options) -> io::Result<ExitCode> {
    let mut report = Report::new(options.output, options.size.rules());
    let size = match options.size {
        Size::Full => FULL,
        Size::Smoke => SMOKE,
    };
    let idle = size.idle.as_allowed(&report)?;
    let stage = Stage::set(options, Routing::ByRoom, Entrances::Plain, &report)?;
    measure_memory(&stage, idle, &mut report)?;
    measure_echo(&stage, &size, options, &mut report)?;
    Ok(report.end(stage.head("tunnels", options)))
}

fn measure_memory(stage: &Stage, idle: IdleTunnels, report: &mut Report) -> io::Result<()> {
    let start = |subject: &_, tunnels| stage.tunnels(subject, tunnels);
    let each = idle.measure("idle tunnels", stage.subjects(), start, report)?;
    if let Some((ours, theirs)) = of(&each, Kind::Shardgate).zip(of(&each, Kind::HaProxy)) {
        let ratio = ours / theirs;
        report.say(format!("memory per tunnel shardgate / HAProxy: {ratio:.3}"));
        report.judge("idle tunnels", "memory per tunnel", ratio, FLOOR);
    }
    Ok(())
}

fn measure_echo(stage: &Stage, size: &Measure, options: &Options, report: &mut Report) -> io::Result<()> {
    let (tunnels, rate) = (size.active_tunnels, size.messages_per_second);
    report.say(format!("\n{tunnels} active tunnels, {} messages/s of 200 bytes", grouped(rate.into())));
    let mut lanes = Vec::new();
    for subject in stage.subjects() {
        let load = open(subject, stage.tunnels(subject, tunnels)?, tunnels, report)?.load;
        lanes.push(Lane { subject, load });
    }
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        report.say(format!("round {round} of {}, load average {}", options.rounds, load_average()?));
        let command = format!("run {rate} {}", TURN.as_millis());
        let measured = measure(&mut lanes, options.seconds, &command, TURN)?;
        say_round(report, "echoes", &measured);
        rounds.push(measured);
    }
    report.add_rounds("Echoes over tunnels at a fixed rate", "echo", FLOOR, &rounds);
    Ok(())
}
